"""The opts database: what was measured, on which device, and how to look the winners up."""
