"""Functions around a MONAI bundle: checks and set-up that its configs call, its folders, its commands."""
