"""What people read after a run: pictures, tables, the model card, the HTML report, the Hub."""
