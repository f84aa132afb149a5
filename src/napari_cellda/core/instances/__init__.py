"""From maps to objects: watersheds, multicut, sizes and measures."""

from napari_cellda.core.instances.separate import InstanceParams, instances_from_maps

__all__ = ["InstanceParams", "instances_from_maps"]
