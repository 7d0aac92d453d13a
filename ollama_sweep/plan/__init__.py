"""What will be measured: from a sweep file to ordered cells. Nothing is measured here and nothing is written."""
