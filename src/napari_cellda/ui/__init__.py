"""The napari side: the only place that knows napari and Qt."""
