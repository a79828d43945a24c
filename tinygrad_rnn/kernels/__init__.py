"""The only second copies of derivatives: array kernels, the stages that numba compiles, and the switch."""
