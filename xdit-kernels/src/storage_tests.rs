use crate::{
    DType, Device, Error, MappedFile, Tensor, View, embedding::embedding, layout, linear::Linear,
    testing::test_devices,
};
use std::path::{Path, PathBuf};

/// A file of its own under the test's name.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str, values: &[f32]) -> Self {
        let path = std::env::temp_dir().join(format!("xdit-kernels-{name}-{}", std::process::id()));
        let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        std::fs::write(&path, bytes).unwrap();
        Self(path)
    }
}

impl std::ops::Deref for Scratch {
    type Target = Path;
    fn deref(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn mapped(file: &MappedFile, shape: [usize; 2], device: &Device) -> Tensor {
    Tensor::from_mapped(file, 0, shape, DType::F32, device).unwrap()
}

#[test]
fn a_mapped_tensor_is_never_a_slice() {
    for device in &test_devices() {
        let values: Vec<f32> = (0..48).map(|i| i as f32).collect();
        let scratch = Scratch::new("slice", &values);
        let file = MappedFile::open(&scratch).unwrap();
        let tensor = mapped(&file, [6, 8], device);
        let owned = Tensor::from_slice(&values, [6, 8], device).unwrap();
        assert!(tensor.host_slice_blocking::<f32>().is_err());
        let view = tensor.view();
        for view in [
            view,
            View::from(&view),
            view.narrow(0, 1, 2).unwrap(),
            view.select(0, 3).unwrap(),
            view.reshape([48]).unwrap(),
            view.split_last(&[2, 4]).unwrap(),
            tensor.narrow(0, 2, 3).unwrap().view(),
            tensor.reshape([2, 24]).unwrap().view(),
            tensor.to_device(&device.fork()).unwrap().view(),
        ] {
            assert_eq!(view.slice::<f32>(), None, "{view:?}");
            let copy = view.to_tensor().unwrap();
            assert!(copy.host_slice_blocking::<f32>().is_ok());
        }
        assert_eq!(tensor.to_vec_blocking::<f32>().unwrap(), values);
        assert_eq!(
            tensor.host_bytes_blocking().unwrap(),
            owned.host_bytes_blocking().unwrap()
        );
        assert_eq!(tensor.first_not_finite_blocking().unwrap(), None);
        // Kernels read it where it lies.
        let row = |t: &Tensor| {
            let ids = Tensor::from_slice(&[5u32, 0], [2], device).unwrap();
            embedding(t, &ids)
                .unwrap()
                .to_vec_blocking::<f32>()
                .unwrap()
        };
        assert_eq!(row(&tensor), row(&owned));
        let x = Tensor::from_slice(&[1f32; 8], [1, 8], device).unwrap();
        let pack = |t: &Tensor| Linear::pack(t.view(), None, DType::F32, device).unwrap();
        assert_eq!(
            pack(&tensor)
                .forward(&x)
                .unwrap()
                .to_vec_blocking::<f32>()
                .unwrap(),
            pack(&owned)
                .forward(&x)
                .unwrap()
                .to_vec_blocking::<f32>()
                .unwrap()
        );
    }
}

#[test]
#[cfg_attr(miri, ignore = "miri maps no files that change")]
fn a_file_that_others_write_changes_numbers_only() {
    let scratch = Scratch::new("written", &[1.0; 4096]);
    let file = MappedFile::open(&scratch).unwrap();
    let tensor = mapped(&file, [64, 64], &Device::cpu());
    let copy = layout::contiguous(&tensor).unwrap();
    let writer = || {
        for i in 0..200 {
            let bytes = [i as f32; 4096].map(f32::to_le_bytes).concat();
            use std::io::Write;
            let mut there = std::fs::OpenOptions::new()
                .write(true)
                .open(&*scratch)
                .unwrap();
            there.write_all(&bytes).unwrap();
        }
    };
    std::thread::scope(|s| {
        let other = s.spawn(writer);
        while !other.is_finished() {
            let now = layout::contiguous(&tensor).unwrap();
            let values = now.host_slice_blocking::<f32>().unwrap();
            assert!(values.iter().all(|v| (0.0..200.0).contains(v)));
            assert_eq!(tensor.first_not_finite_blocking().unwrap(), None);
        }
    });
    assert_eq!(tensor.to_vec_blocking::<f32>().unwrap(), [199.0; 4096]);
    assert_eq!(
        copy.to_vec_blocking::<f32>().unwrap(),
        [1.0; 4096],
        "a copy stays"
    );
}

#[test]
#[cfg_attr(miri, ignore = "miri maps no files that change")]
fn a_file_that_was_cut_is_an_error_where_it_is_read() {
    let scratch = Scratch::new("cut", &[1.0; 64]);
    let file = MappedFile::open(&scratch).unwrap();
    assert_eq!(file.byte_len(), 256);
    assert_eq!(file.read_at(0, 4).unwrap(), 1f32.to_le_bytes());
    assert_eq!(file.read_at(256, 0).unwrap(), [0u8; 0]);
    let there = std::fs::OpenOptions::new()
        .write(true)
        .open(&*scratch)
        .unwrap();
    there.set_len(100).unwrap();
    for (offset, len) in [(0, 256), (99, 2), (usize::MAX, 1), (200, 1)] {
        let error = file.read_at(offset, len).unwrap_err();
        assert!(
            matches!(&error, Error::Io { path, .. } if **path == *scratch),
            "{error}"
        );
    }
    assert!(matches!(
        file.read_at(0, usize::MAX),
        Err(Error::OutOfMemory { .. })
    ));
}

#[test]
fn a_tensor_ends_inside_its_file() {
    let scratch = Scratch::new("end", &[1.0; 6]);
    let file = MappedFile::open(&scratch).unwrap();
    let at = |offset, shape: [usize; 2], dtype| {
        Tensor::from_mapped(&file, offset, shape, dtype, &Device::cpu())
            .map(|t| t.to_vec_blocking::<f32>().unwrap())
    };
    assert_eq!(at(0, [2, 3], DType::F32).unwrap(), [1.0; 6]);
    assert_eq!(at(24, [0, 3], DType::F32).unwrap(), [0f32; 0]);
    // Not aligned for the dtype: a copy.
    assert_eq!(at(1, [1, 5], DType::F32).unwrap().len(), 5);
    for (offset, shape) in [
        (1, [2, 3]),
        (25, [0, 3]),
        (usize::MAX, [1, 1]),
        (8, [usize::MAX, 2]),
        (0, [1 << 62, 4]),
    ] {
        assert!(at(offset, shape, DType::F32).is_err(), "{offset} {shape:?}");
    }
}
