"""Forward passes: plain torch, prepacked for oneDNN, compiled for CPU, Triton kernels for CUDA."""
