// Package sms carries out the texts that other durables queue. It follows the changes
// of the sms.* records and walks each through
//
//	queued → sending → sent, and what webhooks say later (package optouts)
//
// or to suppressed, expired, failed. Three things must hold whatever crashes:
//
// Once. A text is claimed in a commit before it is sent, with a lease. Twilio can't be
// told to send something at most once, so a call that got no clear answer leaves the
// record as it is; when the lease is over, whoever sees the record looks it up in
// Twilio's message list, and only sends if it is not there. What is surely not sent
// goes back to queued.
//
// Not after STOP. The claim reads and writes the contact's record, which an opt-out
// writes too, so that the two can't cross. A STOP that the edge has stored and nobody
// has processed yet is found by a look at the WEBHOOKS leader. The look is made at the
// socket: the connection to Twilio stands, and the first byte waits (gate.go).
//
// Many at a time. Claims are committed together, so are results, and calls run side by
// side in between.
//
// Replicas compare each other's leases with their clocks. These may differ by less than
// a third of the lease; 10 s as configured.
package sms
