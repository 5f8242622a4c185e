"""Operations that only compiler passes insert; users never differentiate them."""
