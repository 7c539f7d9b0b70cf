// Command client is a client on the official fabric-gateway, driven line by line: a JSON request in, a JSON answer out
// (../drivers.py).
package main

import (
	"bufio"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/hyperledger/fabric-gateway/pkg/client"
	"github.com/hyperledger/fabric-gateway/pkg/hash"
	"github.com/hyperledger/fabric-gateway/pkg/identity"
	"github.com/hyperledger/fabric-protos-go-apiv2/gateway"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"
)

const (
	deadline = 30 * time.Second
	lineMax  = 16 << 20
)

type member struct {
	Address        string `json:"address"`
	TLSCA          string `json:"tls_ca"`
	MspID          string `json:"msp_id"`
	Certificate    string `json:"certificate"`
	Key            string `json:"key"`
	TLSCertificate string `json:"tls_certificate"`
	TLSKey         string `json:"tls_key"`
}

type settings struct {
	Channel string            `json:"channel"`
	Members map[string]member `json:"members"`
}

type request struct {
	Act           string            `json:"act"`
	Member        string            `json:"member"`
	Chaincode     string            `json:"chaincode"`
	Arguments     []string          `json:"arguments"`
	Transient     map[string]string `json:"transient"`
	Organisations []string          `json:"organisations"`
	Handle        int               `json:"handle"`
	Start         uint64            `json:"start"`
	Count         int               `json:"count"`
	Checkpoint    string            `json:"checkpoint"`
}

type answer map[string]any

type driver struct {
	settings    settings
	gateways    map[string]*client.Gateway
	prepared    []*client.Transaction
	checkpoints map[string]*client.InMemoryCheckpointer
}

func main() {
	d := &driver{gateways: map[string]*client.Gateway{}, checkpoints: map[string]*client.InMemoryCheckpointer{}}
	content, err := os.ReadFile(os.Args[1])
	must(err)
	must(json.Unmarshal(content, &d.settings))
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, lineMax)
	for lines.Scan() {
		var asked request
		must(json.Unmarshal(lines.Bytes(), &asked))
		result, err := d.act(asked)
		if err != nil {
			result = answer{"error": fault(err)}
		}
		encoded, err := json.Marshal(result)
		must(err)
		fmt.Println(string(encoded))
	}
}

func (d *driver) act(asked request) (answer, error) {
	switch asked.Act {
	case "evaluate":
		return d.evaluate(asked)
	case "submit":
		transaction, err := d.endorse(asked)
		if err != nil {
			return nil, err
		}
		return finish(transaction)
	case "endorse":
		transaction, err := d.endorse(asked)
		if err != nil {
			return nil, err
		}
		d.prepared = append(d.prepared, transaction)
		return answer{"handle": len(d.prepared) - 1, "transaction": transaction.TransactionID()}, nil
	case "finish":
		return finish(d.prepared[asked.Handle])
	case "events":
		return d.events(asked)
	case "blocks":
		return d.blocks(asked)
	case "private":
		return d.private(asked)
	case "filtered":
		return d.filtered(asked)
	}
	return nil, fmt.Errorf("no act %q", asked.Act)
}

func (d *driver) evaluate(asked request) (answer, error) {
	proposal, err := d.proposal(asked)
	if err != nil {
		return nil, err
	}
	result, err := proposal.Evaluate()
	return answer{"result": string(result)}, err
}

func (d *driver) endorse(asked request) (*client.Transaction, error) {
	proposal, err := d.proposal(asked)
	if err != nil {
		return nil, err
	}
	return proposal.Endorse()
}

func finish(transaction *client.Transaction) (answer, error) {
	commit, err := transaction.Submit()
	if err != nil {
		return nil, err
	}
	found, err := commit.Status()
	if err != nil {
		return nil, err
	}
	if !found.Successful {
		return nil, &client.CommitError{TransactionID: found.TransactionID, Code: found.Code}
	}
	return answer{
		"result": string(transaction.Result()), "transaction": found.TransactionID, "block": found.BlockNumber,
	}, nil
}

func (d *driver) proposal(asked request) (*client.Proposal, error) {
	network, err := d.network(asked.Member)
	if err != nil {
		return nil, err
	}
	options := []client.ProposalOption{client.WithArguments(asked.Arguments[1:]...)}
	if len(asked.Transient) > 0 {
		transient := map[string][]byte{}
		for key, value := range asked.Transient {
			transient[key] = []byte(value)
		}
		options = append(options, client.WithTransient(transient))
	}
	if len(asked.Organisations) > 0 {
		options = append(options, client.WithEndorsingOrganizations(asked.Organisations...))
	}
	return network.GetContract(asked.Chaincode).NewProposal(asked.Arguments[0], options...)
}

func (d *driver) events(asked request) (answer, error) {
	network, err := d.network(asked.Member)
	if err != nil {
		return nil, err
	}
	checkpoint, known := d.checkpoints[asked.Checkpoint]
	if !known {
		checkpoint = &client.InMemoryCheckpointer{}
		d.checkpoints[asked.Checkpoint] = checkpoint
	}
	options := []client.ChaincodeEventsOption{client.WithStartBlock(asked.Start)}
	if asked.Checkpoint != "" {
		options = append(options, client.WithCheckpoint(checkpoint))
	}
	ctx, cancel := context.WithTimeout(context.Background(), deadline)
	defer cancel()
	stream, err := network.ChaincodeEvents(ctx, asked.Chaincode, options...)
	if err != nil {
		return nil, err
	}
	found := []answer{}
	for len(found) < asked.Count {
		event, more := <-stream
		if !more {
			return nil, errors.New("the stream of events ended")
		}
		checkpoint.CheckpointChaincodeEvent(event)
		found = append(found, answer{
			"name": event.EventName, "payload": string(event.Payload),
			"transaction": event.TransactionID, "block": event.BlockNumber,
		})
	}
	return answer{"events": found}, nil
}

func (d *driver) blocks(asked request) (answer, error) {
	network, err := d.network(asked.Member)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), deadline)
	defer cancel()
	stream, err := network.BlockEvents(ctx, client.WithStartBlock(asked.Start))
	if err != nil {
		return nil, err
	}
	found := []answer{}
	for len(found) < asked.Count {
		block, more := <-stream
		if !more {
			return nil, errors.New("the stream of blocks ended")
		}
		header := block.GetHeader()
		found = append(found, answer{
			"number": header.GetNumber(), "previous": hex.EncodeToString(header.GetPreviousHash()),
			"data": hex.EncodeToString(header.GetDataHash()),
		})
	}
	return answer{"blocks": found}, nil
}

func (d *driver) filtered(asked request) (answer, error) {
	network, err := d.network(asked.Member)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), deadline)
	defer cancel()
	stream, err := network.FilteredBlockEvents(ctx, client.WithStartBlock(asked.Start))
	if err != nil {
		return nil, err
	}
	found := []answer{}
	for len(found) < asked.Count {
		block, more := <-stream
		if !more {
			return nil, errors.New("the stream of blocks ended")
		}
		transactions := [][]any{}
		for _, one := range block.GetFilteredTransactions() {
			transactions = append(transactions, []any{one.GetTxid(), int(one.GetTxValidationCode())})
		}
		found = append(found, answer{"number": block.GetNumber(), "transactions": transactions})
	}
	return answer{"blocks": found}, nil
}

func (d *driver) private(asked request) (answer, error) {
	network, err := d.network(asked.Member)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), deadline)
	defer cancel()
	stream, err := network.BlockAndPrivateDataEvents(ctx, client.WithStartBlock(asked.Start))
	if err != nil {
		return nil, err
	}
	found := []answer{}
	for len(found) < asked.Count {
		block, more := <-stream
		if !more {
			return nil, errors.New("the stream of blocks ended")
		}
		collections := [][]any{}
		for _, sets := range block.GetPrivateDataMap() {
			for _, one := range sets.GetNsPvtRwset() {
				names := []string{}
				for _, held := range one.GetCollectionPvtRwset() {
					names = append(names, held.GetCollectionName())
				}
				collections = append(collections, []any{one.GetNamespace(), names})
			}
		}
		found = append(found, answer{"number": block.GetBlock().GetHeader().GetNumber(), "collections": collections})
	}
	return answer{"blocks": found}, nil
}

func (d *driver) network(name string) (*client.Network, error) {
	if _, known := d.gateways[name]; !known {
		made, err := d.connect(d.settings.Members[name])
		if err != nil {
			return nil, err
		}
		d.gateways[name] = made
	}
	return d.gateways[name].GetNetwork(d.settings.Channel), nil
}

func (d *driver) connect(own member) (*client.Gateway, error) {
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(read(own.TLSCA))
	transport := &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}
	var digest []byte
	if own.TLSCertificate != "" {
		shown, err := tls.LoadX509KeyPair(own.TLSCertificate, own.TLSKey)
		if err != nil {
			return nil, err
		}
		transport.Certificates = []tls.Certificate{shown}
		sum := sha256.Sum256(shown.Certificate[0])
		digest = sum[:]
	}
	connection, err := grpc.NewClient(own.Address, grpc.WithTransportCredentials(credentials.NewTLS(transport)))
	if err != nil {
		return nil, err
	}
	certificate, err := identity.CertificateFromPEM(read(own.Certificate))
	if err != nil {
		return nil, err
	}
	id, err := identity.NewX509Identity(own.MspID, certificate)
	if err != nil {
		return nil, err
	}
	key, err := identity.PrivateKeyFromPEM(read(own.Key))
	if err != nil {
		return nil, err
	}
	sign, err := identity.NewPrivateKeySign(key)
	if err != nil {
		return nil, err
	}
	hashing := hash.SHA256
	if certificate.PublicKeyAlgorithm == x509.Ed25519 {
		hashing = hash.NONE
	}
	return client.Connect(
		id, client.WithSign(sign), client.WithHash(hashing), client.WithClientConnection(connection),
		client.WithTLSClientCertificateHash(digest), client.WithEvaluateTimeout(deadline),
		client.WithEndorseTimeout(deadline), client.WithSubmitTimeout(deadline),
		client.WithCommitStatusTimeout(deadline),
	)
}

func fault(err error) answer {
	found := status.Convert(err)
	details := []string{}
	for _, detail := range found.Details() {
		if one, ok := detail.(*gateway.ErrorDetail); ok {
			details = append(details, one.GetMessage())
		}
	}
	result := answer{
		"kind": fmt.Sprintf("%T", err), "code": int(found.Code()), "message": err.Error(), "details": details,
		"validation": 0,
	}
	var failed *client.CommitError
	if errors.As(err, &failed) {
		result["validation"] = int(failed.Code)
	}
	return result
}

func read(path string) []byte {
	content, err := os.ReadFile(path)
	must(err)
	return content
}

func must(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
