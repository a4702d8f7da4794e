// Package chaos runs the real programs and does to them what a bad week does: the NATS
// server, the edge and the consumers are processes of their own, which are killed, told
// to end and frozen at random moments, while the stand-ins of Stripe, Meta, Twilio and
// Google send mixed traffic, twice and out of order, and fail at random.
//
// Then it waits until all is quiet and compares what the edge has acknowledged, the
// stream, the records, the spreadsheet and the texts at Twilio with what the people of
// the story would expect to find (model.go): nothing lost, nothing twice, nothing wrong,
// and no text to anybody whose STOP had been answered.
//
// A run is made from its seed alone (plan.go): the same people, the same webhooks at the
// same moments, the same blows. What the machine makes of it differs from run to run.
//
// The programs are this very executable, started again with an environment variable that
// says which one to be: call Child first thing in main or TestMain. Nothing need be
// installed. `make chaos` and `make cluster` are cmd/sandbox with this package.
package chaos
