//! The tests are in `system.rs` and `house/`. This library compiles the code in the pages.

/// The pages with Rust in them, one module each.
#[cfg(doctest)]
mod pages {
    macro_rules! pages {
        ($($name:ident: $file:literal),* $(,)?) => {$(
            #[doc = include_str!($file)]
            mod $name {}
        )*};
    }

    pages!(
        readme: "../README.md",
        own_loop: "../docs/own-loop.md",
        burn_train: "../docs/burn-train.md",
        checkpoints_and_data: "../docs/checkpoints-and-data.md",
        memory: "../docs/memory.md",
        resume: "../docs/resume.md",
    );
}
