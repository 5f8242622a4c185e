"""Planning that both machines share: who computes what, when, and in which memory."""
