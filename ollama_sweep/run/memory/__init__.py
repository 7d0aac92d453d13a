"""What a session does about memory."""
