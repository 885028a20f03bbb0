//! [`FileNames`]: the names of a family's tensors.

/// How the files of a family differ from the parameters of a [`CausalLm`](crate::CausalLm).
#[derive(Clone, Copy, Debug)]
pub(crate) struct FileNames {
    /// Parts of names in a file, each with the part of a parameter path that replaces it, in this order.
    pub(crate) renamed: &'static [(&'static str, &'static str)],
    /// The prefix of the decoder's names in a file.
    pub(crate) prefix: &'static str,
    /// The beginnings of the decoder's names without the prefix. The files of a model without its
    /// head leave the prefix out.
    pub(crate) bare: &'static [&'static str],
    /// Suffixes of the names of stored buffers. These buffers are computed here and not read.
    pub(crate) buffers: &'static [&'static str],
    /// Whether projections are stored as `[out, in]`; here they are `[in, out]`.
    pub(crate) transposed: bool,
}

impl FileNames {
    /// The name in a file of the parameter at this path. Undoes the replacements of `renamed` in reverse, so
    /// that one may give what an earlier one replaces.
    pub(crate) fn stored(&self, path: &str) -> String {
        let renamed = self.renamed.iter().rev();
        renamed.fold(path.to_owned(), |path, (theirs, ours)| {
            path.replacen(ours, theirs, 1)
        })
    }

    /// The name in transformers of the linear module at this path.
    pub(crate) fn module(&self, path: &str) -> String {
        // Whole names are renamed, with the dot that follows them.
        let weight = self.stored(&format!("{path}.weight"));
        weight.strip_suffix(".weight").unwrap_or(&weight).to_owned()
    }
}
