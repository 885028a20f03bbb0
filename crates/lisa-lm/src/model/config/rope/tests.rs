use super::*;

fn close(found: &[f64], expected: &[f64]) {
    assert_eq!(found.len(), expected.len());
    for (found, expected) in found.iter().zip(expected) {
        assert!(
            (found - expected).abs() <= 1e-6 * expected,
            "{found} {expected}"
        );
    }
}

#[test]
fn frequencies_are_those_of_transformers() {
    // transformers 5.23.0, head_dim 16: modeling_rope_utils.ROPE_INIT_FUNCTIONS.
    let default = [
        1.000000000e+00,
        3.162277639e-01,
        1.000000015e-01,
        3.162277862e-02,
        9.999999776e-03,
        3.162277862e-03,
        1.000000047e-03,
        3.162277862e-04,
    ];
    let linear = [
        2.500000000e-01,
        7.905694097e-02,
        2.500000037e-02,
        7.905694656e-03,
        2.499999944e-03,
        7.905694656e-04,
        2.500000119e-04,
        7.905694656e-05,
    ];
    let llama3 = [
        1.000000000e+00,
        1.939227581e-01,
        3.760603070e-02,
        7.292665076e-03,
        5.248460220e-04,
        3.428102355e-05,
        6.647869668e-06,
        1.289173156e-06,
    ];
    let short = [
        1.000000000e+00,
        6.713303924e-02,
        1.175188459e-03,
        2.278957836e-04,
        4.419417019e-05,
        8.570255886e-06,
        1.661967417e-06,
        3.222932889e-07,
    ];
    close(&RopeConfig::new(10_000.0).frequencies(16), &default);
    let scaled = |theta, scaling| RopeConfig { theta, scaling }.frequencies(16);
    close(
        &scaled(10_000.0, RopeScaling::Linear { factor: 4.0 }),
        &linear,
    );
    let scaling = |factor, original_max_positions| RopeScaling::Llama3 {
        factor,
        low_freq_factor: 1.0,
        high_freq_factor: 4.0,
        original_max_positions,
    };
    close(&scaled(500_000.0, scaling(8.0, 8192)), &llama3);
    close(&scaled(500_000.0, scaling(32.0, 64)), &short);
}

#[test]
fn frequencies_of_yarn_are_those_of_transformers() {
    // transformers 5.23.0, head_dim 16: Qwen3RotaryEmbedding(config).inv_freq.
    let cases = [
        // DeepSeek-R1-0528-Qwen3-8B.
        (
            (1e6, 4.0, 32768, [32.0, 1.0], true),
            [
                1.000000000e+00,
                1.778279394e-01,
                3.162277862e-02,
                4.217559937e-03,
                5.000000237e-04,
                4.445698505e-05,
                7.905693565e-06,
                1.405853368e-06,
            ],
        ),
        // Ends between two pairs.
        (
            (1e6, 4.0, 32768, [32.0, 1.0], false),
            [
                1.000000000e+00,
                1.778279394e-01,
                3.162277862e-02,
                5.517270416e-03,
                6.074080011e-04,
                4.445698505e-05,
                7.905693565e-06,
                1.405853368e-06,
            ],
        ),
        (
            (1e6, 4.0, 32768, [8.0, 2.0], true),
            [
                1.000000000e+00,
                1.778279394e-01,
                3.162277862e-02,
                5.623413250e-03,
                6.250000442e-04,
                4.445698505e-05,
                7.905693565e-06,
                1.405853368e-06,
            ],
        ),
        // A first end before the first pair.
        (
            (100.0, 4.0, 16, [32.0, 1.0], true),
            [
                1.000000000e+00,
                3.514633179e-01,
                7.905694097e-02,
                4.445698485e-02,
                2.500000037e-02,
                1.405853219e-02,
                7.905694656e-03,
                4.445698578e-03,
            ],
        ),
        // Equal ends.
        (
            (1e6, 4.0, 4096, [1.0, 1.0], false),
            [
                1.000000000e+00,
                1.778279394e-01,
                3.162277862e-02,
                5.623413250e-03,
                2.500000119e-04,
                4.445698505e-05,
                7.905693565e-06,
                1.405853368e-06,
            ],
        ),
    ];
    for ((theta, factor, original_max_positions, [beta_fast, beta_slow], truncate), expected) in
        cases
    {
        let scaling = RopeScaling::Yarn {
            factor,
            original_max_positions,
            beta_fast,
            beta_slow,
            truncate,
            attention_factor: 0.5,
        };
        let config = RopeConfig { theta, scaling };
        close(&config.frequencies(16), &expected);
        assert_eq!(config.attention_factor(), 0.5);
    }
    let plain = RopeConfig::new(10_000.0);
    let dynamic = RopeConfig {
        scaling: RopeScaling::Dynamic { factor: 4.0 },
        ..plain
    };
    assert_eq!(dynamic.frequencies(16), plain.frequencies(16));
    assert_eq!(dynamic.attention_factor(), 1.0);
}

#[test]
fn scaling_divides_the_low_frequencies() {
    let of = |scaling| {
        let config = RopeConfig {
            theta: 10_000.0,
            scaling,
        };
        config.frequencies(4)
    };
    let plain = of(RopeScaling::Default);
    assert_eq!((plain.len(), plain[0]), (2, 1.0));
    let linear = of(RopeScaling::Linear { factor: 4.0 });
    assert_eq!(linear, [plain[0] / 4.0, plain[1] / 4.0]);
    // The wavelengths are about 6 and 628 positions.
    let llama3 = of(RopeScaling::Llama3 {
        factor: 4.0,
        low_freq_factor: 1.0,
        high_freq_factor: 4.0,
        original_max_positions: 32,
    });
    assert_eq!(llama3, [plain[0], plain[1] / 4.0]);
}
