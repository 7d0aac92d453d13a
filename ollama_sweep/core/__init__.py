"""Words and numbers that every room uses. Nothing here touches a file, a process, a database or a clock."""
