"""Parts that all routes share: authentication, bodies, problem documents, pages."""
