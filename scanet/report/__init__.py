"""From records to what the book shows: statistics, the ledger of claims, tables, figures and pages."""
