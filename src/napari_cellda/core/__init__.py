"""Arrays and tensors: the whole job without napari or Qt."""
