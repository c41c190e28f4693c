"""Laws: pure functions on tensors."""
