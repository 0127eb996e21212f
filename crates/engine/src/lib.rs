//! Generation and embedding over models, inside the ledger.
