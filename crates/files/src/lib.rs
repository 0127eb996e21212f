//! Model files: GGUF and safetensors readers, a GGUF writer, configs, synthetic models.
