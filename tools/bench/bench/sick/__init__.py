"""What an online store that is sick costs requests, under a load that does not wait for anybody."""
