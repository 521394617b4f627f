//! Bugs that are seeded into the kernels, one at a time.

/// A change of a kernel's text: in the lines that contain `line`, all or the one with the number, `from` becomes `to`. An
/// empty `from` drops the instruction.
pub(crate) struct Mutation {
    pub(crate) what: &'static str,
    pub(crate) case: &'static str,
    line: &'static str,
    which: Option<usize>,
    from: &'static str,
    to: &'static str,
}

const fn dropped(
    what: &'static str,
    case: &'static str,
    line: &'static str,
    which: Option<usize>,
) -> Mutation {
    Mutation {
        what,
        case,
        line,
        which,
        from: "",
        to: "",
    }
}

const fn change(
    what: &'static str,
    case: &'static str,
    line: &'static str,
    which: Option<usize>,
    [from, to]: [&'static str; 2],
) -> Mutation {
    Mutation {
        what,
        case,
        line,
        which,
        from,
        to,
    }
}

impl Mutation {
    pub(crate) fn of(&self, text: &str) -> String {
        // Other kernels of the text stay as they are.
        let start = text
            .find(&format!(".entry {}(", self.case))
            .expect("the kernel is in the text");
        let next = text[start + 1..].find("\n.visible .entry");
        let end = next.map_or(text.len(), |length| start + 1 + length);
        let (mut found, mut changed) = (0, 0);
        let body: Vec<String> = text[start..end]
            .lines()
            .map(|line| {
                if !line.contains(self.line) {
                    return line.to_owned();
                }
                found += 1;
                if self.which.is_some_and(|which| which != found - 1) {
                    return line.to_owned();
                }
                changed += 1;
                if self.from.is_empty() {
                    return String::new();
                }
                assert!(
                    line.contains(self.from),
                    "{}: no `{}` in `{line}`",
                    self.what,
                    self.from
                );
                line.replace(self.from, self.to)
            })
            .collect();
        assert!(
            changed > 0,
            "{}: `{}` occurs {found} times",
            self.what,
            self.line
        );
        format!("{}{}{}", &text[..start], body.join("\n"), &text[end..])
    }
}

const ONE: Option<usize> = Some(0);
const TWO: Option<usize> = Some(1);

const ADD: &str = "vector_add";
const SUMS: &str = "block_sums";
const TURN: &str = "transpose";
const SOFT: &str = "softmax_rows";
const HIST: &str = "histogram";
const GEMM: &str = "gemm_bf16";
const RING: &str = "gemm_wgmma";

pub(crate) const MUTATIONS: &[Mutation] = &[
    change(
        "a vector load 4 bytes off",
        ADD,
        "ld.global.v4",
        ONE,
        ["]", "+4]"],
    ),
    change(
        "one element too many",
        "to_bytes",
        "setp.ge.s32",
        ONE,
        ["ge", "gt"],
    ),
    change(
        "rounding towards zero",
        "to_bytes",
        "cvt.rni.f32",
        ONE,
        ["rni", "rzi"],
    ),
    change("one row too many", SOFT, "setp.ge.s32", ONE, ["ge", "gt"]),
    change(
        "a mask without lane 31",
        SOFT,
        "mov.u32 \t%r41, -1",
        ONE,
        ["-1", "2147483647"],
    ),
    change(
        "exp of the wrong sign",
        SOFT,
        "sub.f32",
        ONE,
        ["sub", "add"],
    ),
    dropped(
        "the barrier before other warps' sums",
        SUMS,
        "bar.sync",
        None,
    ),
    dropped("all lanes store the sum", SUMS, "@%p8 bra", None),
    change(
        "a shuffle too short",
        SUMS,
        "mov.u32 \t%r14, 16",
        ONE,
        ["16", "8"],
    ),
    change(
        "sums at the wrong place",
        SUMS,
        "mul.wide.u32 \t%rd6",
        ONE,
        [", 4", ", 8"],
    ),
    dropped("the barrier of the transpose", TURN, "bar.sync", None),
    change(
        "one column too many",
        TURN,
        "setp.ge.s32 \t%p14",
        ONE,
        ["ge", "gt"],
    ),
    dropped(
        "the barrier after the counters are zero",
        HIST,
        "bar.sync",
        ONE,
    ),
    dropped(
        "the barrier before the counters are read",
        HIST,
        "bar.sync",
        TWO,
    ),
    dropped("counters without a start", HIST, "st.shared.u32", None),
    change(
        "a store in place of an atomic, shared",
        HIST,
        "atom.shared.add",
        ONE,
        ["atom.shared.add.u32 \t%r18,", "st.shared.u32"],
    ),
    change(
        "a store in place of an atomic, global",
        HIST,
        "atom.global.add",
        ONE,
        ["atom.global.add.u32 \t%r20,", "st.global.u32"],
    ),
    dropped("the barrier before a stage is read", GEMM, "bar.sync", ONE),
    dropped(
        "the barrier before a stage is filled again",
        GEMM,
        "bar.sync",
        TWO,
    ),
    change(
        "a wait for one group too few",
        GEMM,
        "wait_group 1",
        None,
        ["1", "2"],
    ),
    dropped("the wait for a stage", GEMM, "wait_group 1", None),
    change("the last wait", GEMM, "wait_group 0", None, ["0", "1"]),
    dropped("a commit", GEMM, "commit_group", TWO),
    change(
        "swapped registers of a",
        GEMM,
        "mma.sync",
        ONE,
        ["%r74,%r75", "%r75,%r74"],
    ),
    change(
        "a transposed load",
        GEMM,
        "m8n8.x4",
        ONE,
        ["x4", "x4.trans"],
    ),
    change(
        "f16 in place of bf16",
        GEMM,
        "mma.sync",
        TWO,
        ["bf16.bf16", "f16.f16"],
    ),
    change(
        "a copy of 8 bytes",
        GEMM,
        "cp.async.cg",
        ONE,
        [", 16,", ", 8,"],
    ),
    dropped("an mbarrier without init", RING, "mbarrier.init", ONE),
    change(
        "half of the bytes expected",
        RING,
        ", 16384",
        None,
        ["16384", "8192"],
    ),
    change(
        "twice the bytes expected",
        RING,
        ", 16384",
        None,
        ["16384", "32768"],
    ),
    dropped(
        "nothing orders the init of mbarriers",
        RING,
        "bar.sync \t0",
        None,
    ),
    change(
        "no wait for a full stage",
        RING,
        "p, [%r47]",
        None,
        [
            "mbarrier.try_wait.parity.shared::cta.b64 p, [%r47], %r48",
            "setp.eq.u32 p, 0, 0",
        ],
    ),
    change(
        "no wait for an empty stage",
        RING,
        "p, [%r134]",
        None,
        [
            "mbarrier.try_wait.parity.shared::cta.b64 p, [%r134], %r135",
            "setp.eq.u32 p, 0, 0",
        ],
    ),
    dropped(
        "stages are never given back",
        RING,
        "mbarrier.arrive.shared",
        None,
    ),
    change(
        "a product too few waited for",
        RING,
        "wgmma.wait_group",
        None,
        [" 0", " 1"],
    ),
    dropped(
        "products are not committed",
        RING,
        "wgmma.commit_group",
        None,
    ),
    dropped("registers without wgmma.fence", RING, "wgmma.fence", None),
    dropped(
        "no fence before the copy unit reads",
        RING,
        "fence.proxy.async",
        None,
    ),
    change(
        "a barrier for warps that have exited",
        RING,
        "bar.sync 1, 128",
        ONE,
        ["128", "256"],
    ),
    change(
        "swapped coordinates",
        RING,
        "[%rd3, {%r120, %r1}]",
        None,
        ["{%r120, %r1}", "{%r1, %r120}"],
    ),
    change(
        "groups of rows too near",
        RING,
        "4611686293305360384",
        None,
        ["4611686293305360384", "4611686155866406912"],
    ),
    change(
        "a descriptor without swizzle",
        RING,
        "4611686293305360384",
        None,
        ["4611686293305360384", "274877972480"],
    ),
    dropped(
        "nobody waits for the store of the tile",
        RING,
        "cp.async.bulk.wait_group",
        None,
    ),
    dropped(
        "the store of the tile is not committed",
        RING,
        "cp.async.bulk.commit_group",
        None,
    ),
    change(
        "the tile at the wrong place",
        RING,
        "bulk_group [%rd1",
        None,
        ["{%r186, %r188}", "{%r188, %r186}"],
    ),
    dropped(
        "the barrier before keys are read",
        "attention",
        "bar.sync",
        ONE,
    ),
    dropped(
        "the barrier before keys are overwritten",
        "attention",
        "bar.sync",
        TWO,
    ),
    change(
        "the wait for keys and values",
        "attention",
        "wait_group 1",
        None,
        ["1", "2"],
    ),
    change(
        "values as they lie",
        "attention",
        "m8n8.x2.trans",
        None,
        [".trans", ""],
    ),
    dropped(
        "scores are read before they are there",
        "chain_wgmma",
        "wgmma.wait_group",
        ONE,
    ),
    change(
        "v as if its k were inside",
        "chain_wgmma",
        "p, 1, 1, 1;",
        None,
        ["1, 1, 1;", "1, 1, 0;"],
    ),
];
