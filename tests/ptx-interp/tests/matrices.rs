//! Matrices in registers and in shared memory against the tables of the PTX manual.

use half::{bf16, f16};
use ptx_interp::{FlatMemory, Swizzle, TensorMap};

use crate::support::{Arg, Draw, run_warp, words_of};

/// How an element is stored in bits.
type Encode = fn(f32) -> u32;

fn of_bf16(x: f32) -> u32 {
    bf16::from_f32(x).to_bits().into()
}

fn of_f16(x: f32) -> u32 {
    f16::from_f32(x).to_bits().into()
}

/// Runs a warp that loads `loads` registers of each lane, executes `body`, and stores registers `%r16..`; both in lane order.
fn warp(loads: &[Vec<u32>], body: &str, stores: usize) -> Vec<Vec<u32>> {
    let mut text = String::from(
        ".version 8.0\n.target sm_90a\n.address_size 64\n.visible .entry k(.param .u64 in, .param .u64 out) {\n\
         .reg .b32 %r<32>; .reg .b64 %rd<4>; .reg .b32 %t; .shared .align 16 .b8 tile[512];\n\
         ld.param.u64 %rd0, [in]; ld.param.u64 %rd1, [out]; mov.u32 %t, %laneid;\n\
         mad.wide.u32 %rd0, %t, 4, %rd0; mad.wide.u32 %rd1, %t, 4, %rd1;\n",
    );
    for i in 0..loads.len() {
        text += &format!("ld.global.u32 %r{i}, [%rd0+{}];\n", i * 128);
    }
    text += body;
    for i in 0..stores {
        text += &format!("\nst.global.u32 [%rd1+{}], %r{};", i * 128, 16 + i);
    }
    text += "\nret;\n}\n";
    let words = words_of(&text, &loads.concat(), stores * 32).unwrap_or_else(|e| panic!("{e}"));
    words.chunks(32).map(<[u32]>::to_vec).collect()
}

/// For each register of a fragment and each lane, the places of its values: `(row, column)`.
type Fragment = fn(register: usize, lane: usize) -> Vec<(usize, usize)>;

fn registers(
    count: usize,
    fragment: Fragment,
    value: impl Fn(usize, usize) -> u32,
) -> Vec<Vec<u32>> {
    let register = |i, lane| {
        let places = fragment(i, lane).into_iter().enumerate();
        places.fold(0, |bits, (part, (row, column))| {
            bits | value(row, column) << (16 * part)
        })
    };
    (0..count)
        .map(|i| (0..32).map(|lane| register(i, lane)).collect())
        .collect()
}

/// The manual's table of `a` for 16-bit elements, of `b`, and of the accumulators; `g` is the group, `t` the thread in it.
fn a_16(i: usize, lane: usize) -> Vec<(usize, usize)> {
    let (g, t) = (lane / 4, lane % 4);
    let row = if i == 1 || i == 3 { g + 8 } else { g };
    let column = if i >= 2 { 2 * t + 8 } else { 2 * t };
    vec![(row, column), (row, column + 1)]
}

fn b_16(i: usize, lane: usize) -> Vec<(usize, usize)> {
    let (g, t) = (lane / 4, lane % 4);
    vec![(2 * t + 8 * i, g), (2 * t + 8 * i + 1, g)]
}

fn a_32(i: usize, lane: usize) -> Vec<(usize, usize)> {
    let (g, t) = (lane / 4, lane % 4);
    vec![[(g, t), (g + 8, t), (g, t + 4), (g + 8, t + 4)][i]]
}

fn b_32(i: usize, lane: usize) -> Vec<(usize, usize)> {
    vec![(lane % 4 + 4 * i, lane / 4)]
}

fn c_32(i: usize, lane: usize) -> Vec<(usize, usize)> {
    vec![(
        lane / 4 + if i >= 2 { 8 } else { 0 },
        2 * (lane % 4) + i % 2,
    )]
}

fn c_16(i: usize, lane: usize) -> Vec<(usize, usize)> {
    let row = lane / 4 + 8 * i;
    vec![(row, 2 * (lane % 4)), (row, 2 * (lane % 4) + 1)]
}

fn list(from: usize, count: usize) -> String {
    let names: Vec<String> = (from..from + count).map(|i| format!("%r{i}")).collect();
    format!("{{{}}}", names.join(", "))
}

#[test]
fn products_of_every_shape() {
    let f32_bits: Encode = f32::to_bits;
    let shapes: [(&str, &str, usize, Encode, Encode); 7] = [
        ("m16n8k16", "f32.bf16.bf16.f32", 16, of_bf16, f32_bits),
        ("m16n8k8", "f32.bf16.bf16.f32", 8, of_bf16, f32_bits),
        ("m16n8k16", "f32.f16.f16.f32", 16, of_f16, f32_bits),
        ("m16n8k16", "f16.f16.f16.f16", 16, of_f16, of_f16),
        ("m16n8k8", "f16.f16.f16.f16", 8, of_f16, of_f16),
        ("m16n8k8", "f32.tf32.tf32.f32", 8, f32_bits, f32_bits),
        ("m16n8k4", "f32.tf32.tf32.f32", 4, f32_bits, f32_bits),
    ];
    for (shape, types, k, element, sum) in shapes {
        let mut draw = Draw(k as u64);
        let (a, b, c) = (draw.small(16 * k), draw.small(k * 8), draw.small(128));
        let wide = types.contains("tf32");
        let (of_a, of_b): (Fragment, Fragment) = if wide { (a_32, b_32) } else { (a_16, b_16) };
        let of_c: Fragment = if types.starts_with("f16") { c_16 } else { c_32 };
        let bytes = if wide { 4 } else { 2 };
        let (count_a, count_b) = (k * bytes / 8, k * bytes / 16);
        let count_c = if types.starts_with("f16") { 2 } else { 4 };
        let mut loads = registers(count_a, of_a, |row, column| element(a[row * k + column]));
        loads.extend(registers(count_b, of_b, |row, column| {
            element(b[row * 8 + column])
        }));
        loads.extend(registers(count_c, of_c, |row, column| {
            sum(c[row * 8 + column])
        }));
        let body = format!(
            "mma.sync.aligned.{shape}.row.col.{types} {}, {}, {}, {};",
            list(16, count_c),
            list(0, count_a),
            list(count_a, count_b),
            list(count_a + count_b, count_c)
        );
        let expected = registers(count_c, of_c, |row, column| {
            let terms = (0..k).map(|i| a[row * k + i] * b[i * 8 + column]);
            sum(c[row * 8 + column] + terms.sum::<f32>())
        });
        assert_eq!(warp(&loads, &body, count_c), expected, "{shape} {types}");
    }
}

#[test]
fn tf32_ignores_the_low_bits() {
    let one = vec![
        vec![1f32.to_bits() | 0x1fff; 32],
        vec![0; 32],
        vec![2f32.to_bits(); 32],
        vec![0; 32],
    ];
    let body = "mma.sync.aligned.m16n8k4.row.col.f32.tf32.tf32.f32 {%r16, %r17, %r18, %r19}, {%r0, %r1}, {%r2}, {%r3, %r3, %r3, %r3};";
    assert_eq!(
        warp(&one, body, 4)[..2],
        [vec![8f32.to_bits(); 32], vec![8f32.to_bits(); 32]]
    );
}

#[test]
fn matrices_go_to_shared_memory_and_back() {
    // Lane l gives row l of 32 rows of 16 bytes; matrix j has the rows 8 j on.
    let loads: Vec<Vec<u32>> = (0..4)
        .map(|j| {
            (0..32)
                .map(|lane| (j * 64 + lane * 2) | (j * 64 + lane * 2 + 1) << 16)
                .collect()
        })
        .collect();
    let at = "shl.b32 %r10, %t, 4; mov.u32 %r11, tile; add.u32 %r10, %r10, %r11;";
    let run = |store: &str, load: &str| {
        let body = format!(
            "{at} stmatrix.sync.aligned.m8n8.x4{store}.shared.b16 [%r10], {{%r0, %r1, %r2, %r3}}; bar.warp.sync -1;\n\
             ldmatrix.sync.aligned.m8n8.x4{load}.shared.b16 {{%r16, %r17, %r18, %r19}}, [%r10];"
        );
        warp(&loads, &body, 4)
    };
    assert_eq!(run("", ""), loads);
    assert_eq!(run(".trans", ".trans"), loads);
    let transposed = run("", ".trans");
    assert_eq!(transposed, run(".trans", ""));
    // Element (row, column) of matrix j is 64 j + 8 row + column; lane 5 has row 1 and columns 2 and 3 of the transposed one.
    assert_eq!(
        transposed[2][5],
        (128 + 2 * 8 + 1) | (128 + 3 * 8 + 1) << 16
    );
}

/// Copies a tile to shared memory and every byte of it back: its bytes as they lie there.
fn tile(map: &TensorMap, mut memory: FlatMemory, at: &[i32]) -> Vec<u8> {
    let (rank, bytes) = (map.dims.len(), map.tile_bytes());
    let coordinates: Vec<String> = at.iter().map(i32::to_string).collect();
    let text = format!(
        ".version 8.0\n.target sm_90a\n.address_size 64\n.visible .entry k(.param .align 64 .b8 map[128], .param .u64 out) {{\n\
         .reg .b32 %r<8>; .reg .b64 %rd<8>; .reg .pred %p<4>; .shared .align 1024 .b8 tile[{bytes}]; .shared .align 8 .b8 full[8];\n\
         mov.u32 %r1, %tid.x; ld.param.u64 %rd1, [out]; mov.b64 %rd2, map; cvta.param.u64 %rd3, %rd2; mov.u32 %r2, full; mov.u32 %r3, tile;\n\
         setp.ne.u32 %p1, %r1, 0; @%p1 bra WAIT; mbarrier.init.shared.b64 [%r2], 1;\n\
         mbarrier.arrive.expect_tx.shared.b64 _, [%r2], {bytes};\n\
         cp.async.bulk.tensor.{rank}d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%r3], [%rd3, {{{}}}], [%r2];\n\
         WAIT: bar.sync 0;\nAGAIN: mbarrier.try_wait.parity.shared.b64 %p2, [%r2], 0; @!%p2 bra AGAIN;\n\
         NEXT: setp.ge.u32 %p3, %r1, {bytes}; @%p3 bra END; add.u32 %r4, %r3, %r1; ld.shared.u8 %r5, [%r4];\n\
         cvt.u64.u32 %rd4, %r1; add.s64 %rd5, %rd1, %rd4; st.global.u8 [%rd5], %r5; add.u32 %r1, %r1, 32; bra NEXT;\nEND: ret; }}",
        coordinates.join(", ")
    );
    let out = memory.allocate(bytes);
    let args = vec![
        Arg::Bytes(map.encode().expect("the map follows the rules").to_vec()),
        Arg::Pointer(out),
    ];
    run_warp(&text, &mut memory, args).unwrap_or_else(|e| panic!("{e}"));
    memory.bytes(out, bytes).expect("all bytes were stored")
}

#[test]
fn tiles_of_one_to_five_dims() {
    let dims = [24u64, 3, 4, 2, 3];
    let count: usize = dims.iter().product::<u64>() as usize;
    let data: Vec<u16> = (1..=count as u16).collect();
    let bytes: Vec<u8> = data.iter().flat_map(|x| x.to_le_bytes()).collect();
    for (rank, at) in [
        (1, vec![5]),
        (2, vec![-3, 1]),
        (3, vec![8, -1, 2]),
        (4, vec![16, 2, 3, -1]),
        (5, vec![0, 0, 1, 1, 2]),
    ] {
        for swizzle in [
            Swizzle::None,
            Swizzle::Bytes32,
            Swizzle::Bytes64,
            Swizzle::Bytes128,
        ] {
            let mut memory = FlatMemory::new();
            let strides: Vec<u64> = (1..rank)
                .map(|d| 2 * dims[..d].iter().product::<u64>())
                .collect();
            let map = TensorMap {
                address: memory.put(&bytes),
                element: 2,
                dims: dims[..rank].to_vec(),
                strides,
                tile: [8, 2, 3, 2, 2][..rank].to_vec(),
                swizzle,
            };
            let found = tile(&map, memory, &at);
            for i in 0..map.tile_bytes() / 2 {
                let (mut rest, mut index, mut inside) = (i, 0, true);
                let mut scale = 1;
                for d in 0..rank {
                    let coordinate = i64::from(at[d]) + (rest % map.tile[d] as usize) as i64;
                    rest /= map.tile[d] as usize;
                    inside &= (0..dims[d] as i64).contains(&coordinate);
                    index += coordinate * scale;
                    scale *= dims[d] as i64;
                }
                let expected = if inside { data[index as usize] } else { 0 };
                let place = swizzle.place(i as u64 * 2) as usize;
                let value = u16::from_le_bytes([found[place], found[place + 1]]);
                assert_eq!(value, expected, "{rank} dims, {swizzle:?}, element {i}");
            }
        }
    }
}
