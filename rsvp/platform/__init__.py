"""What the operating system, the hardware and the model hub provide."""
