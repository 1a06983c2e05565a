//! The contract, as wasmtime's bindings of `wit/`.

#![expect(missing_docs, unreachable_pub, clippy::all, clippy::missing_errors_doc, reason = "generated")]

wasmtime::component::bindgen!({
    path: "../../wit",
    world: "millstream-job",
    ownership: Borrowing { duplicate_if_necessary: true },
    imports: { default: trappable },
    exports: { default: async },
});
