// Package bus is the one package that speaks NATS as a transport.
//
//	connect.go  a connection as one of the users of nats.conf
//	publish.go  the edge's side: messages in, nil once all are stored;
//	            publish_group.go: many by one acknowledgement; publish_pace.go: when
//	loop.go     the consumers' side: fetch → handle → settle, until told to stop
//	leader.go   what was in hand when a durable on a cluster got another leader
//	fold.go     handle, for consumers that decide: prepare → fold → commit
//	settle.go   what an error means for the message behind it: the only place that acks
//	gate.go     a consumer whose provider refuses it waits; what a success closes
//
// The in-process server is a package of its own, bus/inproc.
package bus
