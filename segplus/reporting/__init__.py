"""What people read after a run: images, tables, the model card, the HTML report, the Hub."""
