//! LoRA with adapters in some layers only.

use burn::optim::GradientsParams;
use burn::tensor::{Device, Int, Tensor};
use lisa_lm::ModelConfig;
use lisa_lm::model::Input;
use lisa_lm::model::config::LlamaConfig;

use crate::settings::{Flags, Method};
use crate::train::method::trainer::Trainer;

#[test]
fn adapters_of_single_layers_train() {
    let device = Device::flex().autodiff();
    let model = ModelConfig::Llama(LlamaConfig::new(16, 8, 4, 2));
    let model = model.init(&device).unwrap();
    let mut settings = Flags::default().resolve(None).unwrap();
    let method = &mut settings.method;
    (method.method, method.lora_rank) = (Method::Lora, 2);
    method.lora_target_modules = ["layers.3.self_attn.v_proj", "layers.1.mlp.up_proj"]
        .map(String::from)
        .to_vec();
    let (mut trainer, model) = Trainer::new(&settings, model, &device).unwrap();
    let ids = Tensor::<2, Int>::from_data([[1, 2, 3, 4, 5, 6, 7, 8]], &device);
    let loss = model.loss(&Input::new(ids.clone()), ids);
    let grads = GradientsParams::from_grads(loss.backward(), &model);
    let model = trainer.step(1e-2, model, grads).unwrap();
    let adapter = |layer: usize| model.model.layers[layer].mlp.up_proj.lora.as_ref();
    assert!(adapter(0).is_none() && adapter(3).is_none());
    // The matrix begins with zeros.
    let b = adapter(1).unwrap().b.val().into_data();
    assert!(b.iter::<f32>().any(|value| value != 0.0));
}
