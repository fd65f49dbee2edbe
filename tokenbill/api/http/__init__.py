"""What every route shares: authentication, bodies, problem documents, pages."""
