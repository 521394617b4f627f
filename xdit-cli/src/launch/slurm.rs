//! SLURM's compressed lists: names of nodes, and numbers of tasks for each node.

/// Returns the first name of a list of nodes: `node07` of `node[07-09,12],login1`.
pub(super) fn first_node(list: &str) -> Option<String> {
    let (mut name, mut range, mut is_inside) = (String::new(), String::new(), false);
    for c in list.trim().chars() {
        match c {
            '[' if !is_inside => {
                is_inside = true;
                range.clear();
            }
            ']' if is_inside => {
                is_inside = false;
                let first = range.split([',', '-']).next().unwrap_or_default();
                if first.is_empty() || !first.bytes().all(|byte| byte.is_ascii_digit()) {
                    return None;
                }
                name += first;
            }
            _ if is_inside => range.push(c),
            ',' => break,
            // No name of a host has these.
            '[' | ']' => return None,
            c if c.is_whitespace() || c.is_control() => return None,
            c => name.push(c),
        }
    }
    (!is_inside && !name.is_empty()).then_some(name)
}

/// Returns how many tasks a node has, of a list such as `4(x2),3`: 4 on nodes 0 and 1, 3 on node 2.
pub(super) fn tasks_of_node(list: &str, node: usize) -> Option<usize> {
    let mut first = 0_usize;
    for part in list.trim().split(',') {
        let (tasks, nodes) = match part.split_once("(x") {
            Some((tasks, nodes)) => (tasks, nodes.strip_suffix(')')?.parse().ok()?),
            None => (part, 1),
        };
        let tasks: usize = tasks.parse().ok()?;
        first = first.checked_add(nodes)?;
        if node < first {
            return Some(tasks);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_first_of_many_nodes() {
        for (list, first) in [
            ("gnode[10,20,25-27]", "gnode10"),
            ("node7", "node7"),
            ("node07,node08", "node07"),
            ("node[007-031]", "node007"),
            ("a[01-03]b[2-4],c", "a01b2"),
            ("rack[1-2]-n[0,5],login", "rack1-n0"),
            ("cluster-a-[3]", "cluster-a-3"),
            (" host.example.org ", "host.example.org"),
        ] {
            assert_eq!(first_node(list).as_deref(), Some(first), "{list}");
        }
        for wrong in [
            "", ",a", "a[", "a[]", "a[x-y]", "a]", "a b", "[", "a[1[2]]", "(null) x",
        ] {
            assert_eq!(first_node(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn tasks_of_each_node() {
        let of = |list, nodes: std::ops::Range<usize>| -> Vec<_> {
            nodes.map(|node| tasks_of_node(list, node)).collect()
        };
        assert_eq!(of("4(x2),3", 0..4), [Some(4), Some(4), Some(3), None]);
        assert_eq!(of("1", 0..2), [Some(1), None]);
        assert_eq!(of("2,1(x3),8", 3..6), [Some(1), Some(8), None]);
        for wrong in ["", "x", "4(x", "4(x2", "4(xx)", "4,,3", "-1", "4 (x2)"] {
            assert_eq!(tasks_of_node(wrong, 1), None, "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_a_list_or_none(text in ".{0,40}", node in 0_usize..9) {
            first_node(&text);
            tasks_of_node(&text, node);
        }

        #[test]
        fn runs_are_what_they_stand_for(runs in prop::collection::vec((1_usize..9, 1_usize..5), 1..6)) {
            let list: Vec<String> = runs.iter().map(|(tasks, nodes)| match nodes {
                1 => tasks.to_string(),
                _ => format!("{tasks}(x{nodes})"),
            }).collect();
            let all: Vec<usize> = runs.iter().flat_map(|(tasks, nodes)| vec![*tasks; *nodes]).collect();
            for (node, tasks) in all.iter().enumerate() {
                prop_assert_eq!(tasks_of_node(&list.join(","), node), Some(*tasks));
            }
            prop_assert_eq!(tasks_of_node(&list.join(","), all.len()), None);
        }
    }
}
