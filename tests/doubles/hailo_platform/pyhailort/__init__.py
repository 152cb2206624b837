"""The inner package: `_pyhailort` stands for the C++ extension, `pyhailort` for what Python puts around it."""
