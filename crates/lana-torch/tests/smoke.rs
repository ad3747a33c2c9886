//! Scratch.
#[test]
fn tensor_works() {
    let t = tch::Tensor::from_slice(&[1f32, 2., 3.]).matmul(&tch::Tensor::from_slice(&[1f32, 1., 1.]));
    assert_eq!(t.double_value(&[]), 6.0);
}
