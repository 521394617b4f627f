//! Launches that are not possible, and texts that are not known.

use ptx_interp::{Finding, FlatMemory, Launch, Module, Options, TensorMap, launch};

use crate::cases::CASES;
use crate::support::{Arg, Call, Draw};

#[test]
fn launches_and_descriptors() {
    let module = Module::parse(".version 8.0\n.target sm_90a\n.address_size 64\n.visible .entry k(.param .align 64 .b8 map[128]) .maxntid 64, 1, 1 {\n.reg .b64 %rd<4>; .shared .align 128 .b8 tile[512];\nmov.b64 %rd1, map; cvta.param.u64 %rd2, %rd1; cp.async.bulk.tensor.1d.global.shared::cta.bulk_group [%rd2, {0}], [tile]; ret; }").unwrap();
    let run = |block, shared, map: Vec<u8>| {
        let mut memory = FlatMemory::new();
        let call = Call {
            kernel: "k",
            grid: [1; 3],
            block: [block, 1, 1],
            shared,
            args: vec![Arg::Bytes(map)],
        };
        call.run(&module, &mut memory, &Options::default())
            .map_err(|report| report.finding)
    };
    assert_eq!(run(65, 0, vec![0; 128]), Err(Finding::Launch));
    assert_eq!(run(32, 16, vec![0; 128]), Err(Finding::Launch));
    assert_eq!(run(1, 0, vec![0; 128]), Err(Finding::Operand));
    let map = TensorMap {
        address: 1 << 20,
        element: 4,
        dims: vec![8],
        strides: vec![],
        tile: vec![8],
        swizzle: ptx_interp::Swizzle::None,
    };
    assert_eq!(
        run(1, 0, map.encode().unwrap().to_vec()),
        Err(Finding::NeverWritten)
    );
}

#[test]
fn what_is_not_known_is_refused_with_its_line() {
    let refused = |line: &str| {
        let text = format!(
            ".version 8.0\n.target sm_90a\n.address_size 64\n.visible .entry k() {{\n.reg .b32 %r<4>; .reg .b64 %rd<4>; .reg .pred %p<2>;\n{line}\nret;\n}}\n"
        );
        Module::parse(&text).expect_err(line)
    };
    for line in [
        "add.cc.u32 %r0, %r1, %r2;",
        "add.s33 %r0, %r1, %r2;",
        "add.s32 %r0, %r1;",
        "add.s32 %r0, %r1, %r9;",
        "add.rn.s32 %r0, %r1, %r2;",
        "wmma.load.a.sync.aligned.m16n16k16.row.f16 {%r0}, [%rd1];",
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%r0}, {%r1}, {%r2}, {%r3};",
        "mapa.u64 %rd0, %rd1, %r0;",
        "barrier.cluster.arrive;",
        "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster [%r0], [%rd1, {%r1, %r2}], [%r3], %r0;",
        "cp.async.cg.shared.global [%r0], [%rd0], 8;",
        "call.uni f, (%r0);",
        "bra NOWHERE;",
        "ld.global.v3.f32 {%r0, %r1, %r2}, [%rd0];",
        "ld.global.quick.f32 %r0, [%rd0];",
        "st.const.u32 [%rd0], %r0;",
        "setmaxnreg.inc.sync.aligned.u32 13;",
        "setp.hi.s32 %p0, %r0, %r1;",
        "@%r0 mov.u32 %r1, 0;",
        "cvt.rn.bf16.s32 %r0, %r1, %r2;",
        "cvt.rna.satfinite.tf32.f32 %r0, %r1;",
        "cvt.rn.satfinite.f16x2.f32 %r0, %r1, %r2;",
        "cvt.rn.sat.bf16.f32 %r0, %r1;",
        "cvt.ftz.f64.f16 %rd0, %r1;",
        "setp.lt.ftz.f16 %p0, %r0, %r1;",
        "set.lt.ftz.f16x2.f16x2 %r0, %r0, %r1;",
        "add.NaN.f32 %r0, %r1, %r2;",
        "add.f32.f32.f32 %r0, %r1, %r2;",
        "dp4a.sat.s32.s32 %r0, %r1, %r2, %r3;",
        "slct.wide.b32.s32 %r0, %r1, %r2, %r3;",
        "bfi.b32.wrap %r0, %r1, %r2, 0, 8;",
        "lop3.b32 %r0, %r1, %r2, %r3, 0x1ca;",
        "mov.b32 %r0, -0f3F800000;",
        "ld.global.f32.u32 %r0, [%rd0];",
        "bra.quick NEXT;",
        "bar.red.popc.u32;",
        "fence.proxy.tensormap::generic.release.gpu;",
        "mbarrier.test_wait.relaxed.cta.shared::cta.b64 %p0, [%r0], %rd0;",
    ] {
        let error = refused(line);
        assert_eq!((error.line(), error.text()), (6, line), "{error}");
    }
    refused(".reg .b32 %q<-1>;");
    refused(".reg .b32 %q<65530>;");
    refused(&format!("mov.b32 %r0, {}%r1", "{".repeat(1 << 20)));
    let text = ".version 8.0\n.target sm_90\n.address_size 64\n.visible .entry k() .explicitcluster { ret; }";
    assert!(
        Module::parse(text)
            .unwrap_err()
            .to_string()
            .contains("clusters")
    );
    assert!(Module::parse("").is_err());
}

#[test]
fn memory_that_nobody_has() {
    let large = ".global .b8 a[200000000];\n.global .b8 b[200000000];\n";
    assert!(Module::parse(&format!(".version 8.0\n{large}")).is_err());
    let text = ".version 8.0\n.target sm_80\n.address_size 64\n.extern .shared .align 16 .b8 all[];\n.global .b32 v;\n\
                .visible .entry k() {\n.reg .b32 %r<2>; .reg .b64 %rd<2>; mov.u32 %r1, all; mov.b64 %rd0, {%r1, v}; ret; }";
    let module = Module::parse(text).unwrap();
    let run = |shared_bytes, variables: &[u64]| {
        let call = Launch {
            grid: [1; 3],
            block: [1; 3],
            shared_bytes,
            params: &[],
            variables,
        };
        let mut memory = FlatMemory::new();
        launch(
            &module.entries()[0],
            &call,
            &mut memory,
            &Options::default(),
        )
        .map_err(|report| report.finding)
    };
    assert!(run(16, &[256]).is_ok());
    assert_eq!(run(usize::MAX, &[256]), Err(Finding::Launch));
    // A vector names the variable, so it needs an address.
    assert_eq!(run(16, &[]), Err(Finding::Launch));
}

/// A text with one word removed, doubled, or put in place of another.
fn damaged(text: &str, draw: &mut Draw) -> String {
    let start = text.find(".entry").expect("a kernel");
    let body: Vec<&str> = text[start..]
        .split_inclusive([' ', ',', '\n', '\t'])
        .collect();
    let at = draw.below(body.len() as u64) as usize;
    let other = body[draw.below(body.len() as u64) as usize];
    let words = match draw.below(3) {
        0 => vec![],
        1 => vec![body[at], body[at]],
        _ => vec![other],
    };
    format!(
        "{}{}{}{}",
        &text[..start],
        body[..at].concat(),
        words.concat(),
        body[at + 1..].concat()
    )
}

#[test]
fn damaged_texts_end_in_errors_or_results() {
    // Whatever a text says, neither loading nor running it panics.
    let good = CASES.map(|case| Module::parse(case.text).expect("the case loads"));
    let (mut draw, mut loaded) = (Draw(99), 0);
    let options = Options {
        budget: 10_000,
        ..Options::default()
    };
    for i in 0..330 {
        let case = CASES[i % CASES.len()];
        let Ok(module) = Module::parse(&damaged(case.text, &mut draw)) else {
            continue;
        };
        let params = |module: &Module| Some(module.entry(case.name)?.params().to_vec());
        if params(&module) == params(&good[i % CASES.len()]) {
            loaded += 1;
            // The result may be anything.
            let _ = (case.run)(&module, &options);
        }
    }
    assert!(loaded > 50, "{loaded} damaged texts were loaded");
}
