"""HTTP routes of live authorisation: reservations, offline grants, 3GPP converged charging."""
