"""What a lane, an order and a handed-in attempt are: plain data, which travels as strict JSON."""
