package state

import "time"

// SetTry shortens the wait for an answer that a test makes sure never comes.
func (s *Store) SetTry(d time.Duration) { s.try = d }
