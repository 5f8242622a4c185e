"""Planning that CPU and GPU share: which thread computes what, when, and in which memory."""
