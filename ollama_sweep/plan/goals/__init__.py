"""What a sweep is for, and by whom it is scouted, before anything is measured."""
