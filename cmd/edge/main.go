// The edge receives the webhooks of Stripe, Meta and Twilio, verifies them and stores
// them in JetStream; see internal/edge. Without NATS_URL it also runs the NATS server.
// `edge check` tries the configuration.
package main

import (
	"os"

	"leadpipe/internal/daemon/edged"
)

func main() { os.Exit(edged.Main(os.Args[1:])) }
