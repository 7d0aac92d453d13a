"""What a session does about memory, and how far it reaches."""
