"""The part of the module that needs neither 3D Slicer nor Qt."""
