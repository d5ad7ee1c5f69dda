"""What the MONAI bundles' configs call before and around a workflow."""
