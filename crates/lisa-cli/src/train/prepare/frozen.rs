//! [`unmatched`]: which paths of `--freeze` freeze nothing.

use anyhow::Result;
use lisa::LayerMap;
use lisa_lm::CausalLm;

use crate::settings::OUTER;
use crate::user_error::UserError;

/// The paths of `--freeze` that no parameter's path contains. Embeddings and head are not among them, which
/// some models have under other names or tied.
///
/// # Errors
///
/// No path freezes a parameter.
pub(super) fn unmatched<'a>(freeze: &'a [String], model: &CausalLm) -> Result<Vec<&'a str>> {
    if freeze.is_empty() {
        return Ok(Vec::new());
    }
    let map = LayerMap::find(model)?;
    let parameters = map.parameters();
    let freezes = |part: &str| parameters.iter().any(|p| p.path.contains(part));
    let unmatched = freeze.iter().map(String::as_str);
    let mut unmatched: Vec<&str> = unmatched.filter(|part| !freezes(part)).collect();
    if unmatched.len() == freeze.len() {
        let outside: Vec<&str> = map.outside().map(|p| p.path.as_str()).collect();
        let all = freeze.join(",");
        let message = format!("--freeze is `{all}`, and no parameter's path contains it");
        let help = format!(
            "name others; outside the layers there are: {}",
            outside.join(", ")
        );
        return Err(UserError::new(message).with_help(help).into());
    }
    unmatched.retain(|part| !OUTER.contains(part));
    Ok(unmatched)
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;
    use lisa_lm::ModelConfig;

    use super::*;
    use crate::bundled;

    #[test]
    fn each_path_that_freezes_nothing_is_named() {
        let config = ModelConfig::from_json(bundled::CONFIG).unwrap();
        let model = config.init(&Device::flex().autodiff()).unwrap();
        let of = |freeze: &str| {
            let freeze: Vec<String> = freeze.split(',').map(str::to_owned).collect();
            let found = unmatched(&freeze, &model).map_err(|error| error.to_string());
            found.map(|found| found.join(","))
        };
        assert_eq!(of("embed_tokens,layers.3"), Ok(String::new()));
        assert_eq!(of("embed_tokens,layrs.3"), Ok("layrs.3".to_owned()));
        // The default names the head also if it is tied to the embedding.
        assert_eq!(
            of("embed_tokens,embed_positions,lm_head"),
            Ok(String::new())
        );
        let error = "--freeze is `lm_head`, and no parameter's path contains it";
        assert_eq!(of("lm_head"), Err(error.to_owned()));
    }
}
