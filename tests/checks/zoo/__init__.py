"""The zoo: layers as users write them, all of them right, and the mistakes that are planted in them."""
