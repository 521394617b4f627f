//! Parameters, schedules and small programs for the tests.

use ptx_interp::{
    Completion, Entry, Finding, FlatMemory, Launch, Module, Options, Report, Stats, WarpOrder,
    launch,
};

/// Whether a kernel computed what its reference does.
pub(crate) type Verdict = Result<bool, Report>;

/// A parameter of a kernel.
#[derive(Clone, Debug)]
pub(crate) enum Arg {
    Pointer(u64),
    Int(i32),
    Float(f32),
    Bytes(Vec<u8>),
}

/// The bytes of all parameters.
pub(crate) fn params(entry: &Entry, args: &[Arg]) -> Vec<u8> {
    assert_eq!(
        entry.params().len(),
        args.len(),
        "the number of parameters of {}",
        entry.name()
    );
    let mut bytes = vec![0; entry.param_bytes()];
    for (param, arg) in entry.params().iter().zip(args) {
        let value = match arg {
            Arg::Pointer(address) => address.to_le_bytes().to_vec(),
            Arg::Int(value) => value.to_le_bytes().to_vec(),
            Arg::Float(value) => value.to_le_bytes().to_vec(),
            Arg::Bytes(bytes) => bytes.clone(),
        };
        assert_eq!(
            param.size,
            value.len(),
            "the size of a parameter of {}",
            entry.name()
        );
        bytes[param.offset..param.offset + param.size].copy_from_slice(&value);
    }
    bytes
}

/// A launch of a kernel by its name.
pub(crate) struct Call<'a> {
    pub(crate) kernel: &'a str,
    pub(crate) grid: [u32; 3],
    pub(crate) block: [u32; 3],
    pub(crate) shared: usize,
    pub(crate) args: Vec<Arg>,
}

impl Call<'_> {
    pub(crate) fn run(
        &self,
        module: &Module,
        memory: &mut FlatMemory,
        options: &Options,
    ) -> Result<Stats, Report> {
        let entry = module
            .entry(self.kernel)
            .expect("the kernel is in the module");
        let variables = memory.put_variables(module);
        let params = params(entry, &self.args);
        let call = Launch {
            grid: self.grid,
            block: self.block,
            shared_bytes: self.shared,
            params: &params,
            variables: &variables,
        };
        launch(entry, &call, memory, options)
    }
}

/// Every order of warps with both completions, random ones with so many seeds.
pub(crate) fn schedules(seeds: u64) -> Vec<Options> {
    let mut orders = vec![WarpOrder::RoundRobin, WarpOrder::Greedy];
    orders.extend((0..seeds).map(WarpOrder::Random));
    let base = Options {
        budget: 3_000_000,
        ..Options::default()
    };
    let both = [Completion::Early, Completion::Late];
    orders
        .iter()
        .flat_map(|order| {
            both.map(|completion| base.with_order(*order).with_completion(completion))
        })
        .collect()
}

/// Runs the kernel `k` of a text with one warp.
pub(crate) fn run_warp(
    text: &str,
    memory: &mut FlatMemory,
    args: Vec<Arg>,
) -> Result<Stats, Report> {
    let module = Module::parse(text).unwrap_or_else(|e| panic!("{e}"));
    let call = Call {
        kernel: "k",
        grid: [1; 3],
        block: [32, 1, 1],
        shared: 0,
        args,
    };
    call.run(&module, memory, &Options::default())
}

/// So many words that the kernel `k(in, out)` of a text stores, run with one warp.
pub(crate) fn words_of(text: &str, inputs: &[u32], count: usize) -> Result<Vec<u32>, Report> {
    let mut memory = FlatMemory::new();
    let bytes: Vec<u8> = inputs.iter().flat_map(|x| x.to_le_bytes()).collect();
    let (from, to) = (memory.put(&bytes), memory.allocate(count * 4));
    run_warp(text, &mut memory, [from, to].map(Arg::Pointer).to_vec())?;
    let out = memory.bytes(to, count * 4).expect("every word was stored");
    let (words, _) = out.as_chunks();
    Ok(words.iter().map(|word| u32::from_le_bytes(*word)).collect())
}

/// A kernel of one warp that runs `body` and stores `%r0` of each lane; the inputs of a lane are in `%r1`, `%r2`, `%r3`.
/// Registers `%r`, `%rd`, `%f`, `%h` and `%p` are there.
pub(crate) fn lanes_of(body: &str, inputs: &[[u32; 3]; 32]) -> Result<[u32; 32], Report> {
    let text = format!(
        ".version 8.0\n.target sm_90a\n.address_size 64\n.visible .entry k(.param .u64 in, .param .u64 out) {{\n\
         .reg .b32 %r<16>; .reg .b64 %rd<16>; .reg .f32 %f<16>; .reg .b16 %h<16>; .reg .pred %p<8>; .reg .b32 %t;\n\
         ld.param.u64 %rd14, [in]; ld.param.u64 %rd15, [out]; mov.u32 %t, %laneid;\n\
         mad.wide.u32 %rd14, %t, 12, %rd14; mad.wide.u32 %rd15, %t, 4, %rd15; mov.u32 %r0, 0;\n\
         ld.global.u32 %r1, [%rd14]; ld.global.u32 %r2, [%rd14+4]; ld.global.u32 %r3, [%rd14+8];\n\
         {body}\nst.global.u32 [%rd15], %r0;\nret;\n}}\n"
    );
    let words = words_of(&text, inputs.as_flattened(), 32)?;
    Ok(std::array::from_fn(|lane| words[lane]))
}

/// `%r0` after `body` in one lane with these inputs.
pub(crate) fn value_of(body: &str, a: u32, b: u32, c: u32) -> u32 {
    lanes_of(body, &[[a, b, c]; 32]).unwrap_or_else(|e| panic!("{e}"))[7]
}

/// A small generator: tests draw the same numbers everywhere.
pub(crate) struct Draw(pub(crate) u64);

impl Draw {
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        (self.0 >> 33) % bound
    }

    /// Integers of -8 to 8: sums of their products are exact in any order.
    pub(crate) fn small(&mut self, count: usize) -> Vec<f32> {
        (0..count).map(|_| self.below(17) as f32 - 8.0).collect()
    }
}

pub(crate) fn bf16_bytes(values: &[f32]) -> Vec<u8> {
    values
        .iter()
        .flat_map(|x| half::bf16::from_f32(*x).to_le_bytes())
        .collect()
}

/// Runs a body in a block of so many threads. `%rd1` is a buffer of 4096 bytes, `tile` shared memory of 1024, `depot` local
/// memory of 16; `%r1` is the thread, `%r2` the lane.
pub(crate) fn run_on(
    threads: u32,
    grid: u32,
    body: &str,
    options: &Options,
) -> Result<Stats, Report> {
    let text = format!(
        ".version 8.0\n.target sm_90a\n.address_size 64\n.visible .entry k(.param .u64 p) {{\n\
         .reg .b32 %r<16>; .reg .b64 %rd<16>; .reg .pred %p<8>; .shared .align 128 .b8 tile[1024]; .local .align 8 .b8 depot[16];\n\
         ld.param.u64 %rd1, [p]; mov.u32 %r1, %tid.x; mov.u32 %r2, %laneid; mov.u32 %r3, %ctaid.x;\n\
         mov.u32 %r4, tile; shl.b32 %r5, %r1, 2; add.u32 %r6, %r4, %r5; mul.wide.u32 %rd2, %r1, 4; add.s64 %rd3, %rd1, %rd2;\n\
         {body}\nret;\n}}\n"
    );
    let module = Module::parse(&text).unwrap_or_else(|e| panic!("{e}"));
    let mut memory = FlatMemory::new();
    let args = vec![Arg::Pointer(memory.put(&[0; 4096]))];
    Call {
        kernel: "k",
        grid: [grid, 1, 1],
        block: [threads, 1, 1],
        shared: 0,
        args,
    }
    .run(&module, &mut memory, options)
}

/// The finding of a body under all simple schedules, which must agree.
pub(crate) fn finding(threads: u32, body: &str) -> Option<Finding> {
    let mut found = Vec::new();
    for order in [WarpOrder::RoundRobin, WarpOrder::Greedy] {
        for completion in [Completion::Early, Completion::Late] {
            let options = Options {
                budget: 1_000_000,
                ..Options::default()
            };
            let result = run_on(
                threads,
                1,
                body,
                &options.with_order(order).with_completion(completion),
            );
            found.push(result.err().map(|report| report.finding));
        }
    }
    assert!(
        found.iter().all(|one| *one == found[0]),
        "{found:?} for {body}"
    );
    found[0]
}
