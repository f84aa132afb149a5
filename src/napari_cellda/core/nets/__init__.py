"""Networks, each a plain torch module that returns logits."""
