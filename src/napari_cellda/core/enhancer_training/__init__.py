"""Training an enhancer: many forests on a dense source, their maps in, the truth out."""
