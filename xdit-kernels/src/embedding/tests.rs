use super::*;
use crate::DType;
use crate::testing::test_devices;
use proptest::prelude::*;

proptest! {
    #[test]
    fn rows_are_the_tables(n in 1usize..20, c in 0usize..20, ids in prop::collection::vec(0u32..20, 0..30)) {
        for device in &test_devices() {
            let data: Vec<f32> = (0..n * (c + 1)).map(|i| i as f32).collect();
            let wide = Tensor::from_slice(&data, [n, c + 1], device).unwrap();
            let picked = Tensor::from_slice(&ids, [ids.len()], device).unwrap();
            let table = wide.view().narrow(1, 1, c).unwrap();
            let rows = embedding(table, &picked);
            if let Some(bad) = ids.iter().find(|&&id| id as usize >= n) {
                let e = rows.unwrap_err().to_string();
                prop_assert!(e.contains(&format!("ids below {n}, got {bad}")), "{}", e);
            } else {
                let rows = rows.unwrap();
                prop_assert_eq!(rows.shape(), [ids.len(), c]);
                let want: Vec<f32> = ids.iter().flat_map(|&id| (0..c).map(move |i| (id as usize * (c + 1) + i + 1) as f32)).collect();
                prop_assert_eq!(rows.to_vec_blocking::<f32>().unwrap(), want);
            }
        }
    }
}

#[test]
fn wrong_shapes_are_errors() {
    for device in &test_devices() {
        let table = Tensor::zeros([4, 3], DType::BF16, device).unwrap();
        let ids = |ids: &[u32]| Tensor::from_slice(ids, [ids.len()], device).unwrap();
        assert_eq!(
            embedding(&table, &ids(&[3, 3])).unwrap().dtype(),
            DType::BF16
        );
        assert!(embedding(&table.reshape([12]).unwrap(), &ids(&[0])).is_err());
        let mut out = TensorMut::zeros([1, 3], DType::F32, device).unwrap();
        assert!(embedding_into(&table, &ids(&[0]), out.view_mut()).is_err());
        let floats = Tensor::zeros([1], DType::F32, device).unwrap();
        let message = embedding(&table, &floats).unwrap_err().to_string();
        assert_eq!(message, "embedding: expected dtype u32 ids, got f32");
    }
}
