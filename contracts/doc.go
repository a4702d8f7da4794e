// Package contracts is the wire: everything that two programs, or a program and
// its operator, must agree on. It holds
//
//   - the subjects, headers and message ids of the two streams (subjects.go),
//   - the message that travels over them (message.go),
//   - the records of the crm bucket and their keys (records.go, keys.go),
//   - the example webhooks and the JSON Schemas (*.json, schemas/), embedded for tests
//     and for the demo, and the AsyncAPI document of all channels (asyncapi.yaml).
//
// It imports the standard library only, so that anything may import it, and it
// decides nothing: the rules that change records live in the domain packages.
package contracts
